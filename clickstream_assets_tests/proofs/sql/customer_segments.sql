-- Customers as of the end of each day: their orders of 365 days, by user and order id or, without one, minute.

CREATE TABLE orders AS
SELECT
    user_id, order_key, event_date AS order_date, max(us) AS order_at, coalesce(sum(amount), 0) AS amount
FROM persons
WHERE event_type = 'purchase'
GROUP BY user_id, order_key, event_date;

CREATE TABLE returns AS
SELECT report_date, user_id, sum(amount) AS refunds
FROM expected.customer_segment_days
JOIN persons ON event_type = 'refund' AND event_date <= report_date AND event_date > report_date - 365
GROUP BY report_date, user_id;

-- From which day to before which a person does not agree to being profiled, by the last word of each day.
CREATE TABLE refusing AS
SELECT
    user_id,
    event_date AS since,
    coalesce(lead(event_date) OVER (PARTITION BY user_id ORDER BY event_date), DATE '9999-12-31') AS until,
    NOT arg_max(consent, (us, NOT consent)) AS refuses
FROM persons
WHERE consent IS NOT NULL
GROUP BY user_id, event_date;

CREATE TABLE customers AS
SELECT *, coalesce(refunds, 0) AS refunded, monetary - refunded AS net_monetary
FROM (
    SELECT
        report_date,
        user_id,
        report_date - max(order_date) AS recency_days,
        count(DISTINCT order_key) AS frequency,
        sum(amount) AS monetary
    FROM expected.customer_segment_days
    JOIN orders ON order_date <= report_date AND order_date > report_date - 365
    GROUP BY report_date, user_id
) AS buyers
LEFT JOIN returns USING (report_date, user_id)
WHERE NOT EXISTS (
    FROM refusing
    WHERE refuses AND refusing.user_id = buyers.user_id AND buyers.report_date >= since AND buyers.report_date < until
);

-- Scores: in which fifth of the day's buyers, 5 the best; equals are in the same, the one that the middle of them is in.
CREATE MACRO fifth(rank, equals, buyers) AS 1 + (5 * (2 * rank + equals - 2)) // (2 * buyers);

CREATE VIEW rfm_scores AS
SELECT
    report_date,
    user_id,
    fifth(
        rank() OVER (PARTITION BY report_date ORDER BY recency_days DESC),
        count(*) OVER (PARTITION BY report_date, recency_days),
        count(*) OVER its_day
    ) AS r_score,
    fifth(
        rank() OVER (PARTITION BY report_date ORDER BY frequency),
        count(*) OVER (PARTITION BY report_date, frequency),
        count(*) OVER its_day
    ) AS f_score,
    fifth(
        rank() OVER (PARTITION BY report_date ORDER BY net_monetary),
        count(*) OVER (PARTITION BY report_date, net_monetary),
        count(*) OVER its_day
    ) AS m_score
FROM customers
WINDOW its_day AS (PARTITION BY report_date);

-- Who left carts that were abandoned in 30 days and are not taken up.
CREATE TABLE leavers AS
SELECT report_date, user_id, count(*) AS abandoned_carts, sum(value) AS abandoned_value
FROM expected.customer_segment_days
JOIN abandonments ON left_on <= report_date AND left_on > report_date - 30
    AND (taken_up_on IS NULL OR taken_up_on > report_date)
WHERE NOT EXISTS (
    FROM refusing
    WHERE refuses AND refusing.user_id = abandonments.user_id AND report_date >= since AND report_date < until
)
GROUP BY report_date, user_id;

-- The scores and the number of orders from which to which a customer is in a segment.
CREATE TABLE segment_names AS
FROM (VALUES
    ('champions', 5, 5, 4, 5, 1, 1000),
    ('loyal', 3, 4, 4, 5, 1, 1000),
    ('potential_loyalist', 4, 5, 2, 3, 1, 1000),
    ('new_customer', 5, 5, 1, 1, 1, 1),
    ('promising', 5, 5, 1, 1, 2, 1000),
    ('promising', 4, 4, 1, 1, 1, 1000),
    ('need_attention', 3, 3, 3, 3, 1, 1000),
    ('about_to_sleep', 3, 3, 1, 2, 1, 1000),
    ('at_risk', 1, 2, 3, 4, 1, 1000),
    ('cannot_lose', 1, 2, 5, 5, 1, 1000),
    ('hibernating', 2, 2, 1, 2, 1, 1000),
    ('lost', 1, 1, 1, 2, 1, 1000)
) AS names (rfm_segment, r_from, r_to, value_from, value_to, orders_from, orders_to);

INSERT INTO expected.customer_segments BY NAME
SELECT
    report_date,
    user_id,
    rfm_segment,
    recency_days,
    coalesce(frequency, 0) AS frequency,
    coalesce(monetary, 0) AS monetary,
    coalesce(returns.refunds, 0) AS refunds,
    coalesce(monetary, 0) - coalesce(returns.refunds, 0) AS net_monetary,
    r_score,
    f_score,
    m_score,
    coalesce(abandoned_carts, 0) AS abandoned_carts,
    coalesce(abandoned_value, 0) AS abandoned_value
FROM (FROM customers JOIN rfm_scores USING (report_date, user_id))
LEFT JOIN segment_names ON r_score BETWEEN r_from AND r_to
    AND (f_score + m_score + 1) // 2 BETWEEN value_from AND value_to
    AND frequency BETWEEN orders_from AND orders_to
FULL JOIN leavers USING (report_date, user_id)
LEFT JOIN returns USING (report_date, user_id);
