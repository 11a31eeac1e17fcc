'use strict';
// Moves the token of a mailed link from the address into the form: no server and no history sees it.
const form = document.getElementById('with-token');
if (form) {
  const token = new URLSearchParams(location.hash.slice(1)).get('token');
  history.replaceState(null, '', location.pathname);
  if (token) form.elements.token.value = token;
  form.hidden = !token;
  document.getElementById('no-token').hidden = Boolean(token);
}
