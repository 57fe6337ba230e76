-- Attribution: each of a day's orders to the campaigns that its user came by in the 30 days before it. Events of one
-- campaign with no other between them and no pause of more than 30 minutes are one touch.

CREATE TABLE touches AS
WITH brought AS (SELECT * FROM persons WHERE campaign IS NOT NULL),
marked AS (
    SELECT
        *,
        row_number() OVER by_user AS number,
        campaign = lag(campaign) OVER by_user AND us - lag(us) OVER by_user <= 30 * 60000000 AS goes_on
    FROM brought
    WINDOW by_user AS (PARTITION BY user_id ORDER BY us, event_id)
)
SELECT
    user_id,
    campaign,
    us,
    number,
    count(*) FILTER (goes_on IS NOT TRUE) OVER (PARTITION BY user_id ORDER BY number) AS touch
FROM marked;

INSERT INTO expected.campaign_attribution BY NAME
WITH reached AS (
    SELECT user_id, order_key, order_date, amount, touch, campaign, max(number) AS number
    FROM orders JOIN touches USING (user_id)
    WHERE touches.us BETWEEN order_at - 30 * 86400000000 AND order_at
    GROUP BY ALL
),
numbered AS (
    SELECT
        order_date,
        coalesce(campaign, '(direct)') AS campaign,
        (orders.amount * 10000)::BIGINT AS units,
        count(*) OVER its AS touches,
        row_number() OVER (its ORDER BY number) AS from_first
    FROM orders LEFT JOIN reached USING (user_id, order_key, order_date)
    WINDOW its AS (PARTITION BY user_id, order_key, order_date)
),
shares AS (
    SELECT order_date, 'last_touch' AS model, campaign, 10000 AS part, units FROM numbered WHERE from_first = touches
    UNION ALL
    SELECT order_date, 'first_touch', campaign, 10000, units FROM numbered WHERE from_first = 1
    UNION ALL
    SELECT
        order_date,
        'linear',
        campaign,
        CASE WHEN from_first < touches THEN 10000 // touches ELSE 10000 - (touches - 1) * (10000 // touches) END,
        CASE WHEN from_first < touches THEN units // touches ELSE units - (touches - 1) * (units // touches) END
    FROM numbered
)
SELECT
    order_date AS report_date,
    model,
    campaign,
    sum(part)::DECIMAL(18, 0) * 0.0001::DECIMAL(5, 4) AS orders,
    sum(units)::DECIMAL(18, 0) * 0.0001::DECIMAL(5, 4) AS revenue
FROM shares
GROUP BY order_date, model, campaign;
