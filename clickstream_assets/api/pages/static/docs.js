// Shows the OpenAPI document, each operation to be tried.
"use strict";

addEventListener("DOMContentLoaded", () => {
  const place = document.getElementById("api");
  SwaggerUIBundle({
    domNode: place, url: place.dataset.document, deepLinking: true, defaultModelsExpandDepth: -1,
    docExpansion: "none", tryItOutEnabled: true, validatorUrl: null, filter: true,
  });
});
