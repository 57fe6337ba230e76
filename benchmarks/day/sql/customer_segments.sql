-- Of each day from the first with anything in a cart to the newest; reads what carts.sql says was abandoned.
CREATE OR REPLACE TEMP TABLE day_contents AS
WITH of_days AS (
    SELECT event_date, count(*) AS events, md5(string_agg(event_id, ',' ORDER BY event_id)) AS ids_hash
    FROM persons(DATE '1970-01-03', DATE '9999-12-31')
    WHERE event_type IN ('add_to_cart', 'remove_from_cart', 'purchase')
    GROUP BY event_date
), newest AS (SELECT max(event_time) AS as_of FROM events)
SELECT report_date,
    least(as_of, (report_date + 1)::TIMESTAMPTZ) AS as_of,
    coalesce(events, 0) AS events,
    coalesce(ids_hash, '') AS ids_hash
FROM (
    SELECT unnest(generate_series(min(event_date), any_value(as_of)::DATE, INTERVAL 1 DAY))::DATE AS report_date
    FROM of_days, newest
) LEFT JOIN of_days ON event_date = report_date CROSS JOIN newest;

COPY day_contents TO '$folder/customer_segment_days.parquet' (FORMAT parquet, COMPRESSION snappy);

WITH orders AS (
    SELECT user_id, order_of(order_id, event_time) AS order_key, event_date AS order_date,
        coalesce(sum(paid(price, quantity)), 0) AS amount
    FROM persons(DATE '$day' - 364, DATE '9999-12-31') WHERE event_type = 'purchase' GROUP BY ALL
), bought AS (
    SELECT report_date, user_id, max(order_date) AS last_order_date, count(DISTINCT order_key) AS frequency,
        sum(amount) AS monetary
    FROM orders JOIN day_contents ON order_date BETWEEN report_date - 364 AND report_date
    GROUP BY ALL
), abandoned AS (
    SELECT report_date, user_id, count(*) AS abandoned_carts, sum(value) AS abandoned_value
    FROM abandonments JOIN day_contents
    ON make_timestamp(abandoned_us)::DATE BETWEEN report_date - 29 AND report_date
        AND (ended_us IS NULL OR make_timestamp(ended_us)::DATE > report_date)
    GROUP BY ALL
), scored AS (
    SELECT report_date, user_id, report_date - last_order_date AS recency_days, frequency, monetary,
        count(*) OVER (PARTITION BY report_date) AS buyers,
        fifth(rank() OVER (PARTITION BY report_date ORDER BY last_order_date),
            count(*) OVER (PARTITION BY report_date, last_order_date), buyers) AS r_score,
        fifth(rank() OVER (PARTITION BY report_date ORDER BY frequency),
            count(*) OVER (PARTITION BY report_date, frequency), buyers) AS f_score,
        fifth(rank() OVER (PARTITION BY report_date ORDER BY monetary),
            count(*) OVER (PARTITION BY report_date, monetary), buyers) AS m_score,
        (f_score + m_score + 1) // 2 AS value_score
    FROM bought
)
SELECT report_date, user_id,
    CASE
        WHEN r_score = 5 AND value_score >= 4 THEN 'champions'
        WHEN r_score >= 3 AND value_score >= 4 THEN 'loyal'
        WHEN r_score >= 4 AND value_score >= 2 THEN 'potential_loyalist'
        WHEN r_score = 5 AND frequency = 1 THEN 'new_customer'
        WHEN r_score >= 4 THEN 'promising'
        WHEN r_score = 3 AND value_score = 3 THEN 'need_attention'
        WHEN r_score = 3 THEN 'about_to_sleep'
        WHEN value_score = 5 THEN 'cannot_lose'
        WHEN value_score >= 3 THEN 'at_risk'
        WHEN r_score = 2 THEN 'hibernating'
        WHEN r_score = 1 THEN 'lost'
    END AS rfm_segment,
    recency_days,
    coalesce(frequency, 0) AS frequency,
    coalesce(monetary, 0) AS monetary,
    r_score, f_score, m_score,
    coalesce(abandoned_carts, 0) AS abandoned_carts,
    coalesce(abandoned_value, 0) AS abandoned_value
FROM scored FULL JOIN abandoned USING (report_date, user_id)
