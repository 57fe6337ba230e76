-- Funnel: of a day's viewers those with a view, a later addition to a cart and a still later purchase, all within an
-- hour of that view; overall, in each category, and overall for the users of each segment of either kind.

CREATE TABLE funnel_steps AS
SELECT 'overall' AS dimension, 'all' AS value, event_date, user_id, event_type, us FROM persons
UNION ALL
SELECT 'category', coalesce(product_category, 'unknown'), event_date, user_id, event_type, us FROM persons;

CREATE TABLE funnel_users AS
WITH views AS (SELECT * FROM funnel_steps WHERE event_type = 'view'),
additions AS (
    SELECT views.event_date, dimension, value, user_id, views.us AS viewed_at, step.us AS added_at
    FROM views JOIN funnel_steps AS step USING (dimension, value, user_id)
    WHERE step.event_type = 'add_to_cart' AND step.us BETWEEN views.us AND views.us + 3600000000
),
purchases AS (
    SELECT additions.event_date, dimension, value, user_id
    FROM additions JOIN funnel_steps AS step USING (dimension, value, user_id)
    WHERE step.event_type = 'purchase' AND step.us BETWEEN added_at AND viewed_at + 3600000000
)
SELECT
    event_date AS report_date,
    dimension,
    value,
    user_id,
    (event_date, dimension, value, user_id) IN (SELECT (event_date, dimension, value, user_id) FROM additions)
        AS carted,
    (event_date, dimension, value, user_id) IN (SELECT (event_date, dimension, value, user_id) FROM purchases)
        AS purchased
FROM (SELECT DISTINCT event_date, dimension, value, user_id FROM views);

INSERT INTO expected.funnel BY NAME
WITH groups AS (
    SELECT report_date, dimension, value, carted, purchased FROM funnel_users
    UNION ALL
    SELECT report_date, segment.dimension, segment.value, carted, purchased
    FROM funnel_users JOIN funnel_segment AS segment USING (report_date, user_id)
    WHERE funnel_users.dimension = 'overall'
),
counts AS (
    SELECT
        report_date,
        dimension,
        value,
        count(*) AS viewers,
        count(*) FILTER (carted) AS carters,
        count(*) FILTER (purchased) AS purchasers
    FROM groups
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
