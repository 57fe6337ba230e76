WITH of_persons AS (
    SELECT count(*) AS total_events,
        count(DISTINCT user_id) AS users,
        count(DISTINCT user_id) FILTER (event_type = 'purchase') AS buyer_count,
        count(*) FILTER (event_type = 'view') AS views,
        count(*) FILTER (event_type = 'add_to_cart') AS add_to_carts,
        count(*) FILTER (event_type = 'purchase') AS purchases,
        count(DISTINCT (user_id, order_of(order_id, event_time))) FILTER (event_type = 'purchase') AS orders,
        list_sort(list(DISTINCT currency) FILTER (event_type = 'purchase' AND currency IS NOT NULL)) AS currencies,
        coalesce(sum(paid(price, quantity)) FILTER (event_type = 'purchase'), 0)::DECIMAL(18, 4) AS revenue
    FROM persons(DATE '$day', DATE '$day')
), of_sessions AS (
    SELECT count(*) FILTER (NOT is_bot) AS sessions,
        count(*) FILTER (NOT is_bot AND total_events = 1) AS bounced_sessions,
        count(*) FILTER (NOT is_bot AND purchases > 0) AS converted_sessions,
        count(*) FILTER (is_bot) AS bot_sessions
    FROM sessions WHERE session_date = DATE '$day'
), of_all AS (SELECT count(*) AS all_events FROM events WHERE event_date = DATE '$day')
SELECT DATE '$day' AS report_date, total_events, buyer_count,
    users - buyer_count AS window_shopper_count,
    percent(buyer_count, users) AS buyer_rate,
    users, sessions, bounced_sessions,
    percent(bounced_sessions, sessions) AS bounce_rate,
    views, add_to_carts, purchases, orders, revenue,
    (half_even((revenue * 10000)::BIGINT, nullif(orders, 0))::DECIMAL(18, 0) * 0.0001)::DECIMAL(18, 4)
        AS average_order_value,
    converted_sessions,
    percent(converted_sessions, sessions) AS conversion_rate,
    all_events - total_events AS bot_events,
    bot_sessions,
    currencies
FROM of_persons, of_sessions, of_all WHERE all_events > 0
