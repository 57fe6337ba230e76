// Sends a shopper's way from a server, by the library of that name: node send.mjs LIBRARY HOST KEY EVENTS MILLISECONDS
// Ends when the library says that everything is delivered; a delivery that failed for good is an error.
import {setTimeout as pause} from "node:timers/promises";

const [library, host, key, events, milliseconds] = process.argv.slice(2);
const fail = (error) => {
  console.error(error);
  process.exit(1);
};

async function sendEach(send) {
  for (let number = 0; number < Number(events); number++) {
    send(number);
    await pause(Number(milliseconds));
  }
}

const product = (number) => ({product_id: `P-${number}`, category: "Lamps", price: 12.5, currency: "EUR"});

switch (library) {
  case "segment": {
    const {Analytics} = await import("@segment/analytics-node");
    const analytics = new Analytics({writeKey: key, host, flushAt: 5, flushInterval: 100, httpRequestTimeout: 20000});
    analytics.on("error", fail);
    await sendEach((number) =>
      analytics.track({userId: "segment-user", event: "Product Viewed", properties: product(number)}),
    );
    await analytics.closeAndFlush({timeout: 240000});
    break;
  }
  case "rudderstack": {
    const {default: Analytics} = await import("@rudderstack/rudder-sdk-node");
    const analytics = new Analytics(key, {dataPlaneUrl: host, flushAt: 5, errorHandler: fail});
    await sendEach((number) =>
      analytics.track({userId: "rudderstack-user", event: "Product Viewed", properties: product(number)}),
    );
    await new Promise((resolve) => analytics.flush(resolve));
    break;
  }
  case "posthog": {
    const {PostHog} = await import("posthog-node");
    const posthog = new PostHog(key, {host, flushAt: 5});
    posthog.on("error", fail);
    await sendEach((number) =>
      posthog.capture({distinctId: "posthog-user", event: "Product Viewed", properties: product(number)}),
    );
    await posthog.shutdown(60000);
    break;
  }
  default:
    fail(`${library} is no library`);
}
