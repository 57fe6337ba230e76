-- Products of a day.

INSERT INTO expected.product_performance BY NAME
SELECT
    event_date AS report_date,
    product_id,
    count(*) FILTER (event_type = 'view') AS view_count,
    row_number() OVER (PARTITION BY event_date ORDER BY view_count DESC, product_id) AS rank,
    max({'us': us, 'category': product_category}) FILTER (product_category IS NOT NULL).category AS product_category,
    count(*) FILTER (event_type = 'add_to_cart') AS add_to_carts,
    count(*) FILTER (event_type = 'purchase') AS purchases,
    coalesce(sum(coalesce(quantity, 1)) FILTER (event_type = 'purchase'), 0) AS quantity,
    coalesce(sum(amount) FILTER (event_type = 'purchase'), 0) AS revenue,
    coalesce(sum(amount) FILTER (event_type = 'refund'), 0) AS refunds,
    revenue - refunds AS net_revenue,
    count(DISTINCT user_id) AS users,
    count(DISTINCT user_id) FILTER (event_type = 'purchase') AS buyers,
    percent(purchases, view_count) AS conversion_rate
FROM persons
WHERE product_id IS NOT NULL
GROUP BY event_date, product_id;
