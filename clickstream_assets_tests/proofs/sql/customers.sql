-- Customers as of the end of each day, from the first with a cart event or purchase to that of the newest event: their
-- orders of 365 days, by user and order id or, without one, minute.

INSERT INTO expected.customer_segment_days BY NAME
SELECT
    day::DATE AS report_date,
    least(day + INTERVAL 1 DAY, (SELECT max(event_time)::TIMESTAMP FROM events))::TIMESTAMPTZ AS as_of,
    (SELECT count(*) FROM persons WHERE event_date = day::DATE
        AND event_type IN ('add_to_cart', 'remove_from_cart', 'purchase')) AS events,
    '' AS fingerprint
FROM (
    SELECT unnest(generate_series(min(event_date)::TIMESTAMP, (SELECT max(event_date) FROM events)::TIMESTAMP,
        INTERVAL 1 DAY)) AS day
    FROM persons
    WHERE event_type IN ('add_to_cart', 'remove_from_cart', 'purchase')
);

CREATE TABLE orders AS
SELECT
    user_id, order_key, event_date AS order_date, max(us) AS order_at, coalesce(sum(amount), 0) AS amount
FROM persons
WHERE event_type = 'purchase'
GROUP BY user_id, order_key, event_date;

CREATE TABLE customers AS
SELECT
    report_date,
    user_id,
    report_date - max(order_date) AS recency_days,
    count(DISTINCT order_key) AS frequency,
    sum(amount) AS monetary
FROM expected.customer_segment_days
JOIN orders ON order_date <= report_date AND order_date > report_date - 365
GROUP BY report_date, user_id;

