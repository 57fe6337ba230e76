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

addEventListener("DOMContentLoaded", () => {
  const place = document.getElementById("api");
  new MutationObserver(() => fitIn(place)).observe(place, { childList: true, subtree: true });
  SwaggerUIBundle({
    domNode: place, url: place.dataset.document, deepLinking: true, defaultModelsExpandDepth: -1,
    docExpansion: "none", tryItOutEnabled: true, validatorUrl: null, filter: true,
  });
});
