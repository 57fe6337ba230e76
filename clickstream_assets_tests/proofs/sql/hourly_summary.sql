-- The hours of a day, from its midnight on: what happened in each, the orders whose first purchase of the day it had, and
-- the sessions that started.

INSERT INTO expected.hourly_summary BY NAME
WITH placed AS (
    SELECT *, midnight + (us - midnight) // 3600000000 * 3600000000 AS hour_us FROM persons
),
person_hours AS (
    SELECT
        event_date,
        hour_us,
        count(*) AS total_events,
        count(DISTINCT user_id) AS users,
        count(*) FILTER (event_type = 'view') AS views,
        count(*) FILTER (event_type = 'add_to_cart') AS add_to_carts,
        count(*) FILTER (event_type = 'purchase') AS purchases,
        sum(amount) FILTER (event_type = 'purchase') AS revenue,
        sum(amount) FILTER (event_type = 'refund') AS refunds
    FROM placed
    GROUP BY event_date, hour_us
),
first_purchases AS (
    SELECT event_date, min(hour_us) AS hour_us
    FROM placed
    WHERE event_type = 'purchase'
    GROUP BY event_date, user_id, order_key
),
order_hours AS (SELECT event_date, hour_us, count(*) AS orders FROM first_purchases GROUP BY event_date, hour_us),
begun AS (
    SELECT *, epoch_us(date_trunc('day', start_time)) AS midnight, epoch_us(start_time) AS us
    FROM expected.sessions
    WHERE NOT is_bot
),
session_hours AS (
    SELECT
        session_date AS event_date,
        midnight + (us - midnight) // 3600000000 * 3600000000 AS hour_us,
        count(*) AS sessions,
        count(*) FILTER (purchases > 0) AS converted_sessions
    FROM begun
    GROUP BY ALL
),
filled AS (
    SELECT event_date, hour_us, coalesce(columns(* EXCLUDE (event_date, hour_us)), 0)
    FROM person_hours
    FULL JOIN order_hours USING (event_date, hour_us)
    FULL JOIN session_hours USING (event_date, hour_us)
)
SELECT
    * EXCLUDE (event_date, hour_us),
    event_date AS report_date,
    make_timestamptz(hour_us) AS hour_start,
    revenue - refunds AS net_revenue,
    percent(converted_sessions, sessions) AS conversion_rate
FROM filled;
