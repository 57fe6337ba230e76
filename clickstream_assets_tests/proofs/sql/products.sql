-- Products and categories of a day.

INSERT INTO expected.product_performance BY NAME
SELECT
    event_date AS report_date,
    product_id,
    count(*) FILTER (event_type = 'view') AS view_count,
    row_number() OVER (PARTITION BY event_date ORDER BY view_count DESC, product_id) AS rank,
    (list(product_category ORDER BY us DESC, product_category DESC) FILTER (product_category IS NOT NULL))[1]
        AS product_category,
    count(*) FILTER (event_type = 'add_to_cart') AS add_to_carts,
    count(*) FILTER (event_type = 'purchase') AS purchases,
    coalesce(sum(coalesce(quantity, 1)) FILTER (event_type = 'purchase'), 0) AS quantity,
    coalesce(sum(amount) FILTER (event_type = 'purchase'), 0) AS revenue,
    count(DISTINCT user_id) AS users,
    count(DISTINCT user_id) FILTER (event_type = 'purchase') AS buyers,
    percent(purchases, view_count) AS conversion_rate
FROM persons
WHERE product_id IS NOT NULL
GROUP BY event_date, product_id;

INSERT INTO expected.category_conversion BY NAME
SELECT
    event_date AS report_date,
    coalesce(product_category, 'unknown') AS category,
    count(*) FILTER (event_type = 'view') AS views,
    count(*) FILTER (event_type = 'purchase') AS purchases,
    percent(purchases, views) AS conversion_rate,
    count(*) FILTER (event_type = 'add_to_cart') AS add_to_carts,
    coalesce(sum(amount) FILTER (event_type = 'purchase'), 0) AS revenue,
    count(DISTINCT user_id) AS users
FROM persons
WHERE event_type IN ('view', 'add_to_cart', 'purchase')
GROUP BY ALL;
