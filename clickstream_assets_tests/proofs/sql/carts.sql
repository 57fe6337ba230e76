-- Carts: each user's additions, removals and purchases one after another. A row per step: which cart it concerns, what
-- it did to it, and what is in the open cart after it.

CREATE TABLE cart_events AS
SELECT
    user_id,
    CASE event_type WHEN 'add_to_cart' THEN 0 WHEN 'remove_from_cart' THEN 1 ELSE 2 END AS turn,
    row_number() OVER (PARTITION BY user_id ORDER BY us, turn, event_id, product_id, line) AS n,
    us,
    product_id,
    coalesce(quantity, 1) AS quantity,
    price,
    currency,
    order_id,
    order_key
FROM persons
WHERE event_type IN ('add_to_cart', 'remove_from_cart', 'purchase')
QUALIFY bool_or(turn = 0) OVER (PARTITION BY user_id);

CREATE TYPE line AS STRUCT(product_id VARCHAR, quantity BIGINT, price DECIMAL(18, 4), currency VARCHAR);

CREATE TABLE cart_steps AS
WITH RECURSIVE steps AS (
    SELECT DISTINCT
        user_id,
        0::BIGINT AS n,
        NULL::BIGINT AS opened_at,
        NULL::BIGINT AS last_at,
        []::line[] AS content,
        NULL::BIGINT AS bought_cart,
        NULL::VARCHAR AS bought_order,
        NULL::BIGINT AS bought_at,
        []::line[] AS bought_content,
        NULL::VARCHAR AS act,
        NULL::BIGINT AS cart,
        NULL::BIGINT AS us,
        NULL::VARCHAR AS order_id,
        []::line[] AS content_before,
        NULL::line AS bought
    FROM cart_events
    UNION ALL
    SELECT
        user_id,
        n,
        CASE act WHEN 'buy' THEN NULL WHEN 'add' THEN coalesce(opened_at, us) ELSE opened_at END,
        CASE WHEN act IN ('add', 'remove') THEN us WHEN act = 'buy' THEN NULL ELSE last_at END,
        content_after,
        CASE act WHEN 'buy' THEN opened_at ELSE bought_cart END,
        CASE act WHEN 'buy' THEN order_key ELSE bought_order END,
        CASE WHEN act IN ('buy', 'buy_more') THEN us ELSE bought_at END,
        CASE act WHEN 'buy' THEN content_before ELSE bought_content END,
        act,
        CASE act WHEN 'add' THEN coalesce(opened_at, us) WHEN 'buy_more' THEN bought_cart ELSE opened_at END,
        us,
        order_id,
        content_before,
        CASE
            WHEN act IN ('buy', 'buy_more') THEN {
                'product_id': product_id,
                'quantity': quantity,
                'price': coalesce(price, its.price),
                'currency': coalesce(currency, its.currency)
            }::line
        END
    FROM (
        SELECT
            *,
            CASE act
                WHEN 'add' THEN list_append(others, {
                    'product_id': product_id,
                    'quantity': coalesce(its.quantity, 0) + quantity,
                    'price': coalesce(price, its.price),
                    'currency': coalesce(currency, its.currency)
                }::line)
                WHEN 'remove' THEN
                    CASE
                        WHEN its.quantity > quantity THEN list_append(others, {
                            'product_id': product_id,
                            'quantity': its.quantity - quantity,
                            'price': its.price,
                            'currency': its.currency
                        }::line)
                        ELSE others
                    END
                WHEN 'buy' THEN []::line[]
                ELSE content_before
            END AS content_after
        FROM (
            SELECT
                *,
                CASE
                    WHEN turn = 0 THEN 'add'
                    WHEN turn = 1 AND in_cart IS NOT NULL THEN 'remove'
                    WHEN turn = 2 AND in_cart IS NOT NULL THEN 'buy'
                    WHEN turn = 2 AND order_key = bought_order AND in_bought IS NOT NULL
                        AND us - bought_at <= 30 * 86400000000 THEN 'buy_more'
                END AS act,
                CASE act WHEN 'buy_more' THEN in_bought ELSE in_cart END AS its
            FROM (
                SELECT
                    * EXCLUDE (opened_at),
                    CASE WHEN len(content_before) > 0 THEN opened_at END AS opened_at,
                    list_filter(content_before, lambda one: one.product_id = product_id)[1] AS in_cart,
                    list_filter(content_before, lambda one: one.product_id <> product_id) AS others,
                    list_filter(bought_content, lambda one: one.product_id = product_id)[1] AS in_bought
                FROM (
                    SELECT
                        event.*,
                        steps.opened_at,
                        steps.last_at,
                        steps.bought_cart,
                        steps.bought_order,
                        steps.bought_at,
                        steps.bought_content,
                        -- 30 days without activity end a cart.
                        CASE
                            WHEN event.us - steps.last_at > 30 * 86400000000 THEN []::line[]
                            ELSE steps.content
                        END AS content_before
                    FROM steps
                    JOIN cart_events AS event ON event.user_id = steps.user_id AND event.n = steps.n + 1
                )
            )
        )
    )
)
SELECT * FROM steps WHERE act IS NOT NULL;

CREATE TABLE cart_pauses AS
SELECT user_id, cart, before_at + 86400000000 AS abandoned_at, us AS ended_at, content_before
FROM (SELECT *, lag(us) OVER (PARTITION BY user_id, cart ORDER BY n) AS before_at FROM cart_steps)
WHERE us - before_at >= 86400000000 AND act <> 'buy_more';

CREATE TABLE cart_ends AS
WITH last_steps AS (
    SELECT
        user_id,
        cart,
        max(us) AS last_at,
        min(us) FILTER (act = 'buy') AS purchased_at,
        min(order_id) FILTER (act = 'buy') AS order_id,
        arg_max(content, n) AS content,
        list(bought) FILTER (bought IS NOT NULL) AS bought
    FROM cart_steps
    GROUP BY user_id, cart
)
SELECT
    * EXCLUDE (content, bought),
    coalesce(bought, content) AS lines,
    paused_at,
    CASE
        WHEN purchased_at IS NOT NULL AND paused_at IS NULL THEN 'converted'
        WHEN purchased_at IS NOT NULL THEN 'recovered'
        WHEN len(content) = 0 THEN 'emptied'
        WHEN (SELECT max(us) FROM events) - last_at >= 86400000000 THEN 'abandoned'
        ELSE 'open'
    END AS state
FROM last_steps
LEFT JOIN (SELECT user_id, cart, max(abandoned_at) AS paused_at FROM cart_pauses GROUP BY user_id, cart)
    USING (user_id, cart);

INSERT INTO expected.carts BY NAME
SELECT
    left(sha256(user_id || '|' || cart), 32) AS cart_id,
    user_id,
    state,
    make_timestamptz(cart) AS opened_at,
    make_timestamptz(last_at) AS last_activity_at,
    make_timestamptz(last_at)::DATE AS last_activity_date,
    list_unique(list_transform(lines, lambda one: one.product_id)) AS items,
    coalesce(list_sum(list_transform(lines, lambda one: one.quantity)), 0) AS quantity,
    coalesce(list_sum(list_transform(lines, lambda one: one.quantity * coalesce(one.price, 0))), 0) AS value,
    CASE
        WHEN len(list_distinct(list_transform(lines, lambda one: coalesce(one.currency, '')))) = 1
        THEN lines[1].currency
    END AS currency,
    list_sort(list_distinct(list_transform(lines, lambda one: one.product_id))) AS product_ids,
    make_timestamptz(CASE state WHEN 'abandoned' THEN last_at + 86400000000 ELSE paused_at END) AS abandoned_at,
    make_timestamptz(purchased_at) AS purchased_at,
    (purchased_at - cart) // 1000000 AS seconds_to_purchase,
    order_id
FROM cart_ends;

CREATE TABLE abandonments AS
SELECT
    user_id,
    make_timestamptz(abandoned_at)::DATE AS left_on,
    make_timestamptz(ended_at)::DATE AS taken_up_on,
    list_sum(list_transform(content_before, lambda one: one.quantity * coalesce(one.price, 0))) AS value
FROM cart_pauses
UNION ALL
SELECT user_id, abandoned_at::DATE, NULL, value FROM expected.carts WHERE state = 'abandoned';
