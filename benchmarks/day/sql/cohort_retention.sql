WITH weeks AS (SELECT DISTINCT user_id, date_trunc('week', report_date)::DATE AS week FROM user_segments),
firsts AS (SELECT user_id, min(week) AS cohort FROM weeks GROUP BY user_id),
active AS (SELECT cohort, week, count(*) AS active_users FROM weeks JOIN firsts USING (user_id) GROUP BY ALL)
SELECT cohorts.cohort AS cohort_week,
    (every.week - cohorts.cohort) // 7 AS weeks_since,
    cohorts.active_users AS users,
    coalesce(active.active_users, 0) AS active_users,
    coalesce(active.active_users, 0) / cohorts.active_users AS retention_rate
FROM active AS cohorts
JOIN (SELECT DISTINCT week FROM weeks) AS every ON every.week >= cohorts.cohort
LEFT JOIN active ON active.cohort = cohorts.cohort AND active.week = every.week
WHERE cohorts.week = cohorts.cohort
