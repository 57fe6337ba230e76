-- Funnel: of a day's viewers those with a view, a later addition to a cart and a still later purchase, all within an
-- hour of that view; overall, in each category, and overall for the users of each segment of either kind.

CREATE TABLE funnel_steps AS
WITH steps AS (
    SELECT
        event_date AS report_date,
        coalesce(product_category, 'unknown') AS category,
        user_id,
        event_type,
        us,
        midnight
    FROM persons
    WHERE event_type IN ('view', 'add_to_cart', 'purchase')
),
-- What follows a view of the day before.
with_next_day AS (
    FROM steps
    UNION ALL
    SELECT * REPLACE (report_date - 1 AS report_date)
    FROM steps
    WHERE event_type <> 'view' AND us - midnight < 3600000000
)
SELECT * EXCLUDE (category, midnight), 'overall' AS dimension, 'all' AS value FROM with_next_day
UNION ALL
SELECT * EXCLUDE (category, midnight), 'category', category FROM with_next_day;

INSERT INTO expected.funnel BY NAME
WITH views AS (FROM funnel_steps WHERE event_type = 'view'),
-- The latest view before an addition leaves it the most time, as the latest addition does a purchase.
additions AS (
    SELECT report_date, dimension, value, user_id, step.us, views.us AS viewed_at
    FROM (FROM funnel_steps WHERE event_type = 'add_to_cart') AS step
    ASOF JOIN views USING (report_date, dimension, value, user_id, us)
    WHERE step.us - views.us <= 3600000000
),
purchases AS (
    SELECT report_date, dimension, value, user_id
    FROM (FROM funnel_steps WHERE event_type = 'purchase') AS step
    ASOF JOIN additions USING (report_date, dimension, value, user_id, us)
    WHERE step.us - viewed_at <= 3600000000
),
reached AS (
    FROM (SELECT DISTINCT report_date, dimension, value, user_id FROM views)
    LEFT JOIN (SELECT DISTINCT report_date, dimension, value, user_id, 1 AS carted FROM additions)
        USING (report_date, dimension, value, user_id)
    LEFT JOIN (SELECT DISTINCT *, 1 AS purchased FROM purchases) USING (report_date, dimension, value, user_id)
),
-- Segments: what users did that day, and which customers they were at the end of the day before.
grouped AS (
    SELECT report_date, dimension, value, carted, purchased FROM reached
    UNION ALL
    SELECT report_date, 'segment', segment, carted, purchased
    FROM reached JOIN expected.user_segments USING (report_date, user_id)
    WHERE dimension = 'overall'
    UNION ALL
    SELECT reached.report_date, 'rfm', coalesce(rfm_segment, 'not_a_customer'), carted, purchased
    FROM reached
    LEFT JOIN expected.customer_segments AS day_before
        ON day_before.user_id = reached.user_id AND day_before.report_date = reached.report_date - 1
    WHERE dimension = 'overall'
),
counts AS (
    SELECT report_date, dimension, value, count(*) AS viewers, count(carted) AS carters, count(purchased) AS purchasers
    FROM grouped
    GROUP BY ALL
)
SELECT
    report_date,
    dimension,
    value,
    unnest(['view', 'add_to_cart', 'purchase']) AS step,
    unnest([1, 2, 3]) AS step_number,
    unnest([viewers, carters, purchasers]) AS users,
    unnest([NULL, percent(carters, viewers), percent(purchasers, carters)]) AS conversion_from_previous,
    unnest([percent(viewers, viewers), percent(carters, viewers), percent(purchasers, viewers)])
        AS conversion_from_first
FROM counts;
