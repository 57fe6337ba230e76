-- Users by the week in which they were first seen: how many come back in which.

INSERT INTO expected.cohort_retention BY NAME
WITH weeks AS (SELECT DISTINCT user_id, date_trunc('week', report_date)::DATE AS week FROM expected.user_segments),
first_weeks AS (SELECT user_id, min(week) AS cohort_week FROM weeks GROUP BY user_id),
cohorts AS (SELECT cohort_week, count(*) AS users FROM first_weeks GROUP BY cohort_week),
seen AS (
    SELECT cohort_week, week, count(*) AS seen_users FROM first_weeks JOIN weeks USING (user_id) GROUP BY ALL
)
SELECT
    cohort_week,
    (week - cohort_week) // 7 AS weeks_since,
    users,
    coalesce(seen_users, 0) AS active_users,
    percent(coalesce(seen_users, 0), users) AS retention_rate
FROM cohorts
JOIN (SELECT DISTINCT week FROM weeks) AS every_week ON week >= cohort_week
LEFT JOIN seen USING (cohort_week, week);
