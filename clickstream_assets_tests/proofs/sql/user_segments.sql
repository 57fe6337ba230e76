-- Users of a day: who purchased and who did not.

INSERT INTO expected.user_segments BY NAME
SELECT
    event_date AS report_date,
    user_id,
    CASE WHEN bool_or(event_type = 'purchase') THEN 'buyer' ELSE 'window_shopper' END AS segment,
    count(*) AS events,
    count(*) FILTER (event_type = 'view') AS views,
    count(*) FILTER (event_type = 'add_to_cart') AS add_to_carts,
    count(*) FILTER (event_type = 'purchase') AS purchases,
    coalesce(sum(amount) FILTER (event_type = 'purchase'), 0) AS revenue
FROM persons
GROUP BY event_date, user_id;
