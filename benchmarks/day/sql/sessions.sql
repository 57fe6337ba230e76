WITH around AS (
    SELECT * FROM events WHERE event_date = DATE '$day'
    UNION ALL
    SELECT * FROM events
    WHERE event_date BETWEEN DATE '$day' - 2 AND DATE '$day' - 1 AND user_id IN (
        SELECT user_id FROM events
        WHERE event_date = DATE '$day' - 1 AND event_time >= TIMESTAMPTZ '$day' - INTERVAL 30 MINUTE
    )
    UNION ALL
    SELECT * FROM events
    WHERE event_date = DATE '$day' + 1 AND user_id IN (
        SELECT user_id FROM events
        WHERE event_date = DATE '$day' AND event_time >= TIMESTAMPTZ '$day' + INTERVAL 1410 MINUTE
    )
), marked AS (
    SELECT user_id, event_type, product_id, price, quantity, is_bot, campaign, session_id,
        epoch_us(event_time) AS us,
        row_number() OVER by_user AS number,
        coalesce(us - lag(us) OVER by_user > 1800000000, true) AS starts,
        CASE event_type WHEN 'view' THEN lag(us, 60) OVER (
            PARTITION BY user_id, event_type ORDER BY event_time, event_id
        ) END AS sixty_views_ago
    FROM around WINDOW by_user AS (PARTITION BY user_id ORDER BY event_time, event_id)
), chained AS (
    SELECT *, max(CASE WHEN starts THEN us END) OVER (
        PARTITION BY user_id ORDER BY number ROWS UNBOUNDED PRECEDING
    ) AS chain_at
    FROM marked
), visits AS (
    SELECT user_id,
        CASE WHEN us // $day_us * $day_us - chain_at >= $day_us THEN us // $day_us ELSE 0 END
            AS piece,
        min(us) AS start_us,
        max(us) AS end_us,
        count(*) AS total_events,
        count(*) FILTER (event_type = 'view') AS views,
        count(*) FILTER (event_type = 'click') AS clicks,
        count(*) FILTER (event_type = 'add_to_cart') AS add_to_carts,
        count(*) FILTER (event_type = 'remove_from_cart') AS remove_from_carts,
        count(*) FILTER (event_type = 'purchase') AS purchases,
        count(*) FILTER (event_type = 'search') AS searches,
        count(DISTINCT product_id) AS distinct_products,
        arg_min(product_id, number) AS entry_product_id,
        arg_max(product_id, number) AS exit_product_id,
        coalesce(sum(paid(price, quantity)) FILTER (event_type = 'purchase'), 0) AS revenue,
        bool_or(is_bot) AS is_robot,
        piece > 0 OR end_us - start_us >= $day_us AS is_endless,
        -- A pause that ends a visit is longer than a minute; a midnight that cuts an endless one is not.
        bool_or(us - sixty_views_ago < 60000000 AND (piece = 0 OR us // $day_us = sixty_views_ago // $day_us))
            AS is_too_fast,
        arg_min(campaign, number) AS campaign,
        list(DISTINCT session_id) FILTER (session_id IS NOT NULL) AS client_session_ids
    FROM chained GROUP BY user_id, chain_at, piece
)
SELECT sha256(user_id || '|' || start_us)[1:32] AS session_id,
    make_timestamp(start_us)::DATE AS session_date,
    user_id,
    make_timestamptz(start_us) AS start_time,
    make_timestamptz(end_us) AS end_time,
    (end_us - start_us) // 1000000 AS duration_seconds,
    total_events, views, clicks, add_to_carts, remove_from_carts, purchases, searches, distinct_products,
    entry_product_id, exit_product_id, revenue,
    is_robot OR coalesce(is_too_fast, false) OR is_endless AS is_bot,
    CASE WHEN is_robot THEN 'user_agent' WHEN is_too_fast THEN 'view_rate' WHEN is_endless THEN 'endless_session' END
        AS bot_reason,
    CASE WHEN purchases > 0 THEN 'purchase' WHEN add_to_carts > 0 THEN 'add_to_cart'
        WHEN views + clicks > 0 THEN 'view' ELSE 'none' END AS furthest_step,
    campaign,
    list_sort(client_session_ids) AS client_session_ids
FROM visits WHERE start_us >= epoch_us(TIMESTAMPTZ '$day') AND start_us < epoch_us(TIMESTAMPTZ '$day') + $day_us
