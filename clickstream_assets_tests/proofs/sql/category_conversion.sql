-- Categories of a day.

INSERT INTO expected.category_conversion BY NAME
SELECT
    event_date AS report_date,
    coalesce(product_category, 'unknown') AS category,
    count(*) FILTER (event_type = 'view') AS views,
    count(*) FILTER (event_type = 'purchase') AS purchases,
    percent(purchases, views) AS conversion_rate,
    count(*) FILTER (event_type = 'add_to_cart') AS add_to_carts,
    coalesce(sum(amount) FILTER (event_type = 'purchase'), 0) AS revenue,
    coalesce(sum(amount) FILTER (event_type = 'refund'), 0) AS refunds,
    revenue - refunds AS net_revenue,
    count(DISTINCT user_id) FILTER (event_type <> 'refund') AS users
FROM persons
WHERE event_type IN ('view', 'add_to_cart', 'purchase', 'refund')
GROUP BY ALL;
