-- The scores of customers(report_date, user_id, recency_days, frequency, monetary): in which fifth of the day's buyers,
-- 5 the best; equals are in the same, the one that the middle of them is in.

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
        rank() OVER (PARTITION BY report_date ORDER BY monetary),
        count(*) OVER (PARTITION BY report_date, monetary),
        count(*) OVER its_day
    ) AS m_score
FROM customers
WINDOW its_day AS (PARTITION BY report_date);
