WITH orders AS (
    SELECT user_id, order_of(order_id, event_time) AS order_key, event_date, max(event_time) AS order_time,
        (coalesce(sum(paid(price, quantity)), 0) * 10000)::BIGINT AS units
    FROM persons(DATE '$day', DATE '$day') WHERE event_type = 'purchase' GROUP BY ALL
), marked AS (
    SELECT user_id, event_time, campaign, row_number() OVER by_user AS place,
        coalesce(campaign <> lag(campaign) OVER by_user
            OR event_time - lag(event_time) OVER by_user > INTERVAL 30 MINUTE, true) AS begins
    FROM events
    WHERE event_date BETWEEN DATE '$day' - 31 AND DATE '$day' AND campaign IS NOT NULL AND NOT is_bot
    WINDOW by_user AS (PARTITION BY user_id ORDER BY event_time, event_id)
), touches AS (
    SELECT user_id, touch, campaign, min(event_time) AS first_time, max(event_time) AS last_time
    FROM (
        SELECT *, count(*) FILTER (begins) OVER (
            PARTITION BY user_id ORDER BY place ROWS UNBOUNDED PRECEDING
        ) AS touch
        FROM marked
    ) GROUP BY ALL
), reached AS (
    SELECT event_date, units, coalesce(campaign, '(direct)') AS campaign,
        row_number() OVER of_order AS number, count(*) OVER (PARTITION BY orders.user_id, order_key, event_date) AS touches
    FROM orders LEFT JOIN touches
    ON touches.user_id = orders.user_id AND first_time <= order_time
        AND last_time >= order_time - INTERVAL 720 HOUR
    WINDOW of_order AS (PARTITION BY orders.user_id, order_key, event_date ORDER BY touch)
), shares AS (
    SELECT event_date, 'last_touch' AS model, campaign, 10000 AS part, units FROM reached WHERE number = touches
    UNION ALL
    SELECT event_date, 'first_touch', campaign, 10000, units FROM reached WHERE number = 1
    UNION ALL
    SELECT event_date, 'linear', campaign,
        10000 // touches + CASE WHEN number = touches THEN 10000 % touches ELSE 0 END,
        units // touches + CASE WHEN number = touches THEN units % touches ELSE 0 END
    FROM reached
)
SELECT event_date AS report_date, model, campaign,
    (sum(part)::DECIMAL(18, 0) * 0.0001)::DECIMAL(18, 4) AS orders,
    (sum(units)::DECIMAL(18, 0) * 0.0001)::DECIMAL(18, 4) AS revenue
FROM shares GROUP BY ALL
