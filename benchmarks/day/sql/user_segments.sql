SELECT event_date AS report_date, user_id,
    CASE WHEN bool_or(event_type = 'purchase') THEN 'buyer' ELSE 'window_shopper' END AS segment,
    count(*) AS events,
    count(*) FILTER (event_type = 'view') AS views,
    count(*) FILTER (event_type = 'add_to_cart') AS add_to_carts,
    count(*) FILTER (event_type = 'purchase') AS purchases,
    coalesce(sum(paid(price, quantity)) FILTER (event_type = 'purchase'), 0) AS revenue
FROM persons(DATE '$day', DATE '$day') GROUP BY ALL
