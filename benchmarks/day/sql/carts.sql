-- What a cart holds depends on all that came before: so all users' first events, then all their second ones, and so on.
CREATE OR REPLACE TEMP TABLE touches AS
WITH RECURSIVE histories AS (
    SELECT user_id, list({
        'us': epoch_us(event_time),
        'turn': CASE event_type WHEN 'add_to_cart' THEN 0 WHEN 'remove_from_cart' THEN 1 ELSE 2 END,
        'event_id': event_id,
        'product_id': product_id,
        'line': {'quantity': coalesce(quantity, 1), 'price': price, 'currency': currency},
        'order_key': order_of(nullif(order_id, ''), event_time),
        'order_id': nullif(order_id, '')
    }) AS history
    FROM persons(DATE '1970-01-03', DATE '9999-12-31')
    WHERE event_type IN ('add_to_cart', 'remove_from_cart', 'purchase')
    GROUP BY user_id
), followed USING KEY (user_id) AS (
    SELECT user_id, list_sort(history) AS history, 0 AS n,
        0 AS cart, false AS is_open, NULL::BIGINT AS last_us,
        MAP {}::cart_content AS content,
        0 AS bought, NULL::VARCHAR AS bought_order,
        MAP {}::cart_content AS bought_content,
        []::STRUCT(
            cart INTEGER, kind VARCHAR, us BIGINT, order_id VARCHAR, product_id VARCHAR,
            line cart_line,
            content cart_content
        )[] AS touches
    FROM histories
    UNION ALL
    SELECT user_id, history, n + 1,
        cart_after,
        CASE kind WHEN 'add' THEN true WHEN 'remove' THEN cardinality(content_after) > 0 WHEN 'buy' THEN false
            ELSE still_open END,
        CASE WHEN kind IN ('add', 'remove', 'buy') THEN event.us ELSE last_us END,
        content_after,
        CASE kind WHEN 'buy' THEN cart_after ELSE bought END,
        CASE kind WHEN 'buy' THEN event.order_key ELSE bought_order END,
        CASE kind WHEN 'buy' THEN held ELSE bought_content END,
        CASE WHEN kind IS NULL THEN touches ELSE list_append(touches, {
            'cart': CASE kind WHEN 'more' THEN bought ELSE cart_after END,
            'kind': kind, 'us': event.us, 'order_id': event.order_id, 'product_id': event.product_id,
            'line': event.line,
            'content': CASE kind WHEN 'more' THEN bought_content ELSE content_after END
        }) END
    FROM (
        SELECT *,
            cart + (kind IS NOT DISTINCT FROM 'add' AND NOT still_open)::INTEGER AS cart_after,
            CASE
                WHEN kind = 'add' THEN map_concat(held, MAP {event.product_id: {
                    'quantity': coalesce(there.quantity, 0) + event.line.quantity,
                    'price': coalesce(event.line.price, there.price),
                    'currency': coalesce(nullif(event.line.currency, ''), there.currency)
                }})
                WHEN kind = 'remove' AND there.quantity > event.line.quantity
                    THEN map_concat(held, MAP {event.product_id: {
                        'quantity': there.quantity - event.line.quantity,
                        'price': there.price,
                        'currency': there.currency
                    }})
                WHEN kind = 'remove' THEN map_from_entries(list_filter(
                    map_entries(held), lambda entry: entry.key <> event.product_id
                ))
                ELSE held
            END AS content_after
        FROM (
            SELECT *, held[event.product_id] AS there,
                CASE
                    WHEN event.turn = 0 THEN 'add'
                    WHEN event.turn = 1 AND held[event.product_id] IS NOT NULL THEN 'remove'
                    WHEN event.turn = 2 AND held[event.product_id] IS NOT NULL THEN 'buy'
                    WHEN event.turn = 2 AND event.order_key = bought_order
                        AND bought_content[event.product_id] IS NOT NULL THEN 'more'
                END AS kind
            FROM (
                SELECT *, CASE WHEN still_open THEN content
                        ELSE MAP {}::cart_content END
                        AS held
                FROM (
                    SELECT *, coalesce(is_open AND event.us - last_us <= 30 * $day_us, false) AS still_open
                    FROM (SELECT *, history[n + 1] AS event FROM followed WHERE n < len(history))
                )
            )
        )
    )
)
SELECT user_id, unnest(touches, recursive := false) AS touch, generate_subscripts(touches, 1) AS place FROM followed;

CREATE OR REPLACE TEMP TABLE abandonments AS
SELECT user_id, cart, before_us + $day_us AS abandoned_us, us AS ended_us,
    list_sum(list_transform(
        map_values(content_before), lambda line: line.quantity * coalesce(line.price, 0)
    )) AS value
FROM (
    SELECT user_id, touch.cart, touch.us,
        lag(touch.us) OVER of_cart AS before_us, lag(touch.content) OVER of_cart AS content_before
    FROM touches WHERE touch.kind <> 'more'
    WINDOW of_cart AS (PARTITION BY user_id, touch.cart ORDER BY place)
)
WHERE us - before_us >= $day_us;

CREATE OR REPLACE TEMP TABLE described AS
SELECT *, CASE WHEN purchased_us IS NOT NULL THEN CASE WHEN abandoned_us IS NULL THEN 'converted' ELSE 'recovered' END
        WHEN len(lines) = 0 THEN 'emptied'
        WHEN (SELECT epoch_us(max(event_time)) FROM events) - last_us >= $day_us THEN 'abandoned'
        ELSE 'open' END AS state,
    list_transform(lines, lambda line: line.product_id) AS products,
    list_distinct(list_transform(lines, lambda line: line.currency)) AS currencies,
    len(list_filter(lines, lambda line: line.currency IS NULL)) AS without_currency
FROM (
    SELECT user_id, touch.cart,
        min(touch.us) AS opened_us, max(touch.us) AS last_us,
        min(touch.us) FILTER (touch.kind = 'buy') AS purchased_us,
        any_value(touch.order_id) FILTER (touch.kind = 'buy') AS order_id,
        coalesce(
            list({
                'product_id': touch.product_id, 'quantity': touch.line.quantity,
                'price': coalesce(touch.line.price, touch.content[touch.product_id].price),
                'currency': coalesce(nullif(touch.line.currency, ''), touch.content[touch.product_id].currency)
            }) FILTER (touch.kind IN ('buy', 'more')),
            list_transform(map_entries(arg_max(touch.content, place)), lambda entry: {
                'product_id': entry.key, 'quantity': entry.value.quantity,
                'price': entry.value.price, 'currency': entry.value.currency
            })
        ) AS lines
    FROM touches GROUP BY ALL
)
LEFT JOIN (SELECT user_id, cart, max(abandoned_us) AS abandoned_us FROM abandonments GROUP BY ALL)
USING (user_id, cart);

INSERT INTO abandonments
SELECT user_id, cart, last_us + $day_us, NULL,
    list_sum(list_transform(lines, lambda line: line.quantity * coalesce(line.price, 0)))
FROM described WHERE state = 'abandoned';

SELECT sha256(user_id || '|' || opened_us)[1:32] AS cart_id,
    user_id, state,
    make_timestamptz(opened_us) AS opened_at,
    make_timestamptz(last_us) AS last_activity_at,
    len(list_distinct(products)) AS items,
    coalesce(list_sum(list_transform(lines, lambda line: line.quantity)), 0) AS quantity,
    coalesce(list_sum(list_transform(lines, lambda line: line.quantity * coalesce(line.price, 0))), 0) AS value,
    CASE WHEN len(currencies) = 1 AND without_currency = 0 THEN currencies[1] END AS currency,
    list_sort(list_distinct(products)) AS product_ids,
    make_timestamptz(CASE state WHEN 'abandoned' THEN last_us + $day_us ELSE abandoned_us END) AS abandoned_at,
    make_timestamptz(purchased_us) AS purchased_at,
    (purchased_us - opened_us) // 1000000 AS seconds_to_purchase,
    order_id
FROM described;
