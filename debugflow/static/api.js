"use strict";
// The page that shows the API's description and lets one try it. A session's changes need the CSRF
// token, which signing in again replaces, so it is read from the answers that carry it.
(async () => {
  const place = document.getElementById("api");
  const me = await (await fetch(place.dataset.session)).json();
  let token = me.csrf_token;
  SwaggerUIBundle({
    url: place.dataset.schema,
    domNode: place,
    deepLinking: false, // its links would stand within buttons, which no keyboard gets out of
    validatorUrl: null,
    requestInterceptor: (request) => {
      request.headers["X-CSRFToken"] = token;
      return request;
    },
    responseInterceptor: (response) => {
      if (response.obj && response.obj.csrf_token) token = response.obj.csrf_token;
      return response;
    },
  });
})();
