// Shows the OpenAPI document, each operation to be tried.
"use strict";

// Swagger UI's headings follow ours, and its parts have names, for whoever goes by them.
function fitIn(place) {
  for (const [part, role, name] of [[".information-container", "region", "About the API"], [".filter-container", "search", "Operations"]]) {
    place.querySelectorAll(`${part}:not([role])`).forEach((element) => {
      element.setAttribute("role", role);
      element.setAttribute("aria-label", name);
    });
  }
  place.querySelectorAll("h3.opblock-tag:not([aria-level])").forEach((heading) => heading.setAttribute("aria-level", "2"));
}

// What an operation is tried with: the newest of what there is, so that it has something to answer.
async function known() {
  const first = async (address, name) => {
    const answer = await fetch(address);
    return answer.ok ? (await answer.json())[name][0] : undefined;
  };
  const [report, visit, experiment, products] = await Promise.all([
    first("/api/reports?limit=1", "reports"), first("/sessions?limit=1", "sessions"), first("/api/experiments", "experiments"),
    fetch("/api/product-totals?limit=2").then((answer) => (answer.ok ? answer.json() : { products: [] })),
  ]);
  const ids = products.products.map((each) => each.product_id);
  return {
    date: report?.report_date, user_id: visit?.user_id, person_id: visit?.user_id, name: experiment?.name,
    product_id: ids[0], anonymous_id: "visitor_1", products: ids.length ? ids : undefined,
    timestamp: new Date().toISOString(),
  };
}

// The example with each value whose name is known put in the place of what stands there.
function withKnown(example, values) {
  if (Array.isArray(example)) {
    return example.map((each) => withKnown(each, values));
  }
  if (example === null || typeof example !== "object") {
    return example;
  }
  return Object.fromEntries(Object.entries(example).map(([name, value]) => [
    name, values[name] ?? withKnown(value, values)]));
}

function addExamples(spec, values) {
  const operations = Object.values(spec.paths).flatMap((path) => Object.values(path));
  for (const operation of operations) {
    for (const parameter of operation.parameters ?? []) {
      if (parameter.required && values[parameter.name]) {
        parameter.example = values[parameter.name];
      }
    }
    const body = operation.requestBody?.content["application/json"];
    if (body?.example) {
      body.example = withKnown(body.example, values);
    }
  }
  const session = spec.components.schemas._Session?.properties.products;
  if (session && values.products) {
    session.example = values.products;
  }
  return spec;
}

addEventListener("DOMContentLoaded", async () => {
  const place = document.getElementById("api");
  new MutationObserver(() => fitIn(place)).observe(place, { childList: true, subtree: true });
  const spec = addExamples(await (await fetch(place.dataset.document)).json(), await known());
  SwaggerUIBundle({
    domNode: place, spec, deepLinking: true, defaultModelsExpandDepth: -1,
    docExpansion: "none", tryItOutEnabled: true, validatorUrl: null, filter: true,
  });
});
