-- The segments that a day's users count in: what they did that day, and which customers they were at the end of the day
-- before.

CREATE VIEW funnel_segment AS
SELECT 'segment' AS dimension, report_date, user_id, segment AS value FROM expected.user_segments
UNION ALL
SELECT 'rfm', today.report_date, today.user_id, coalesce(day_before.rfm_segment, 'not_a_customer')
FROM expected.user_segments AS today
LEFT JOIN expected.customer_segments AS day_before
    ON day_before.user_id = today.user_id AND day_before.report_date = today.report_date - 1;
