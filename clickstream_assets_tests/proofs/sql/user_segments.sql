-- Who purchased on a day and who did not, and of whom first seen in a week how many come back in which.

INSERT INTO expected.user_segments BY NAME
SELECT
    event_date AS report_date,
    user_id,
    CASE WHEN bool_or(event_type = 'purchase') THEN 'buyer' ELSE 'window_shopper' END AS segment,
    count(*) AS events,
    count(*) FILTER (event_type = 'view') AS views,
    count(*) FILTER (event_type = 'add_to_cart') AS add_to_carts,
    count(*) FILTER (event_type = 'purchase') AS purchases,
    coalesce(sum(amount) FILTER (event_type = 'purchase'), 0) AS revenue
FROM persons
GROUP BY event_date, user_id;

INSERT INTO expected.cohort_retention BY NAME
WITH weeks AS (SELECT DISTINCT user_id, date_trunc('week', event_date)::DATE AS week FROM persons),
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
    coalesce(seen_users, 0) / users AS retention_rate
FROM cohorts
JOIN (SELECT DISTINCT week FROM weeks) AS every_week ON week >= cohort_week
LEFT JOIN seen USING (cohort_week, week);
