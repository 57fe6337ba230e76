-- The scores of customers(report_date, user_id, recency_days, frequency, monetary), 5 the best.

CREATE VIEW rfm_scores AS
SELECT
    report_date,
    user_id,
    6 - ntile(5) OVER (PARTITION BY report_date ORDER BY recency_days, user_id) AS r_score,
    6 - ntile(5) OVER (PARTITION BY report_date ORDER BY frequency DESC, user_id) AS f_score,
    6 - ntile(5) OVER (PARTITION BY report_date ORDER BY monetary DESC, user_id) AS m_score
FROM customers;
