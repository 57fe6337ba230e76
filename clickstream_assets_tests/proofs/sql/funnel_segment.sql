-- Which segment a day's viewer counts in.

CREATE VIEW funnel_segment AS
SELECT report_date, user_id, segment AS value FROM expected.user_segments;
