WITH steps AS (
    SELECT user_id, event_type, coalesce(product_category, 'unknown') AS category, epoch_us(event_time) AS us
    FROM persons(DATE '$day', DATE '$day' + 1)
    WHERE event_type IN ('view', 'add_to_cart', 'purchase') AND (
        event_date = DATE '$day'
        OR event_type <> 'view' AND event_time < TIMESTAMPTZ '$day' + INTERVAL 25 HOUR
    )
), grouped AS (
    SELECT 'overall' AS dimension, 'all' AS value, * EXCLUDE (category) FROM steps
    UNION ALL
    SELECT 'category', category, * EXCLUDE (category) FROM steps
), viewers AS (
    SELECT DISTINCT dimension, value, user_id FROM grouped WHERE event_type = 'view'
), additions AS (
    SELECT cart.dimension, cart.value, cart.user_id, cart.us, viewed.us AS view_at
    FROM (FROM grouped WHERE event_type = 'add_to_cart') AS cart
    ASOF JOIN (FROM grouped WHERE event_type = 'view') AS viewed
    ON cart.user_id = viewed.user_id AND cart.dimension = viewed.dimension AND cart.value = viewed.value
        AND cart.us >= viewed.us
    WHERE cart.us - viewed.us <= 3600000000
), carters AS (
    SELECT DISTINCT dimension, value, user_id, 1 AS carted FROM additions
), purchasers AS (
    SELECT DISTINCT bought.dimension, bought.value, bought.user_id, 1 AS purchased
    FROM (FROM grouped WHERE event_type = 'purchase') AS bought
    ASOF JOIN additions AS cart
    ON bought.user_id = cart.user_id AND bought.dimension = cart.dimension AND bought.value = cart.value
        AND bought.us >= cart.us
    WHERE bought.us - cart.view_at <= 3600000000
), reached AS (
    FROM viewers LEFT JOIN carters USING (dimension, value, user_id)
    LEFT JOIN purchasers USING (dimension, value, user_id)
), counted AS (
    SELECT dimension, value, [count(*), count(carted), count(purchased)] AS users FROM reached GROUP BY ALL
    UNION ALL
    SELECT 'segment', segment, [count(*), count(carted), count(purchased)]
    FROM reached JOIN user_segments USING (user_id)
    WHERE dimension = 'overall' AND report_date = DATE '$day' GROUP BY segment
    UNION ALL
    SELECT 'rfm', coalesce(rfm_segment, 'not_a_customer'), [count(*), count(carted), count(purchased)]
    FROM reached LEFT JOIN (FROM customer_segments WHERE report_date = DATE '$day' - 1) USING (user_id)
    WHERE dimension = 'overall' GROUP BY ALL
)
SELECT DATE '$day' AS report_date, dimension, value,
    ['view', 'add_to_cart', 'purchase'][step_number] AS step, step_number, users[step_number] AS users,
    CASE WHEN step_number > 1 THEN percent(users[step_number], users[step_number - 1]) END
        AS conversion_from_previous,
    percent(users[step_number], users[1]) AS conversion_from_first
FROM (SELECT *, unnest([1, 2, 3]) AS step_number FROM counted)
