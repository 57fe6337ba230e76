-- A day in one row: events and users of the day, and the sessions that started on it.

INSERT INTO expected.daily_summary BY NAME
WITH every_day AS (SELECT event_date, count(*) AS all_events FROM events GROUP BY event_date),
persons_days AS (
    SELECT
        event_date,
        count(*) AS total_events,
        count(DISTINCT user_id) AS users,
        count(DISTINCT user_id) FILTER (event_type = 'purchase') AS buyer_count,
        count(*) FILTER (event_type = 'view') AS views,
        count(*) FILTER (event_type = 'add_to_cart') AS add_to_carts,
        count(*) FILTER (event_type = 'purchase') AS purchases,
        count(DISTINCT (user_id, order_key)) FILTER (event_type = 'purchase') AS orders,
        sum(amount) FILTER (event_type = 'purchase') AS revenue,
        sum(amount) FILTER (event_type = 'refund') AS refunds,
        list_sort(list(DISTINCT currency) FILTER (event_type = 'purchase' AND currency IS NOT NULL)) AS currencies,
        -- The shops of the proofs have one currency.
        max(currency) FILTER (event_type IN ('purchase', 'refund') AND price IS NOT NULL) AS currency
    FROM persons
    GROUP BY event_date
),
session_days AS (
    SELECT
        session_date AS event_date,
        count(*) FILTER (NOT is_bot) AS sessions,
        count(*) FILTER (NOT is_bot AND total_events = 1) AS bounced_sessions,
        count(*) FILTER (NOT is_bot AND purchases > 0) AS converted_sessions,
        count(*) FILTER (is_bot) AS bot_sessions
    FROM expected.sessions
    GROUP BY session_date
),
filled AS (
    SELECT
        event_date,
        all_events,
        currencies,
        currency,
        0 AS unconverted,
        coalesce(columns(* EXCLUDE (event_date, all_events, currencies, currency)), 0)
    FROM every_day LEFT JOIN persons_days USING (event_date) LEFT JOIN session_days USING (event_date)
)
SELECT
    * EXCLUDE (event_date, all_events),
    event_date AS report_date,
    revenue - refunds AS net_revenue,
    users - buyer_count AS window_shopper_count,
    percent(buyer_count, users) AS buyer_rate,
    percent(bounced_sessions, sessions) AS bounce_rate,
    CASE WHEN orders > 0 THEN half_even((revenue * 10000)::HUGEINT, orders)::DECIMAL(18, 0) * 0.0001::DECIMAL(5, 4) END
        AS average_order_value,
    percent(converted_sessions, sessions) AS conversion_rate,
    all_events - total_events AS bot_events
FROM filled;
