// The interactive documentation of the HTTP interface: Swagger UI, which comes with a package of the service.

const response = await fetch("openapi.json");
const spec = await response.json();
// Paths continue the address of this page, which a proxy may publish under any path.
spec.servers = [{ url: new URL(".", document.baseURI).href.replace(/\/$/, "") }];
window.SwaggerUIBundle({
  spec,
  dom_id: "#docs",
  deepLinking: true,
  presets: [window.SwaggerUIBundle.presets.apis],
  layout: "BaseLayout",
  displayRequestDuration: true,
  defaultModelsExpandDepth: 0,
  // Otherwise Swagger UI sends the description to a service of its authors.
  validatorUrl: null,
});
