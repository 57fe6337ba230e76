// A page of a small shop: its address has the collector's host, the key, and whether calls are sent in batches.
import {AnalyticsBrowser} from "@segment/analytics-next";

const {host, key, strategy} = Object.fromEntries(new URLSearchParams(location.search));
const integration = {apiKey: key, apiHost: `${host}/v1`, protocol: "http"};
if (strategy === "batching") {
  integration.deliveryStrategy = {strategy, config: {size: 3, timeout: 500}};
}
const analytics = AnalyticsBrowser.load({
  writeKey: key,
  cdnSettings: {integrations: {"Segment.io": integration}},
});
const called = [];
const call = (made) => called.push(made.then((context) => context.event.messageId));
window.called = () => Promise.all(called);

call(analytics.page("Lamps"));
for (const button of document.querySelectorAll("button")) {
  button.addEventListener("click", () => {
    const properties = {product_id: button.id, price: 12.5, currency: "EUR", quantity: 1};
    call(analytics.track("Product Added", properties));
  });
}
document.querySelector("a").addEventListener("click", () => {
  navigator.sendBeacon(
    `http://${host}/api/events?write_key=${key}`,
    JSON.stringify({
      event_id: `beacon-${strategy}`,
      event_type: "begin_checkout",
      timestamp: new Date().toISOString(),
      anonymous_id: "beacon",
    }),
  );
});
