// Checks access tokens with jose, as a service written in JavaScript would.
//
// Install:  npm install jose      in this folder or one above it, or elsewhere with NODE_PATH=.../node_modules
// Use:      node verify.mjs < tokens.json
//
// Reads {"jwks": {...}, "issuer": "...", "audience": "...", "tokens": [{"name", "token", "good"}]} and prints `ok NAME`
// or `WRONG NAME: why` for each token. It ends with status 1 if any token is taken that is not good, or refused though
// it is.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

// Unlike an import by name, this also looks where NODE_PATH says.
const { decodeProtectedHeader, importJWK, jwtVerify } = await import(
  pathToFileURL(createRequire(import.meta.url).resolve("jose"))
);

const ALGORITHMS = ["EdDSA", "ES256", "RS256"];
const HEADER = ["alg", "kid", "typ"];
const REQUIRED = ["iss", "sub", "aud", "exp", "nbf", "iat", "sid", "jti"];
const LEEWAY = 60;

/** The keys by their `kid`, each with the one algorithm that it is for. */
async function keySet(jwks) {
  const keys = new Map();
  for (const entry of jwks.keys) {
    if (ALGORITHMS.includes(entry.alg) && entry.use === "sig") {
      keys.set(entry.kid, { algorithm: entry.alg, key: await importJWK(entry, entry.alg) });
    }
  }
  return keys;
}

/** The claims of a good token; throws for any other. */
async function verify(token, keys, issuer, audience) {
  const header = decodeProtectedHeader(token);
  if (Object.keys(header).sort().join() !== HEADER.join()) {
    throw new Error(`the header is ${JSON.stringify(header)}`);
  }
  const entry = keys.get(header.kid);
  if (!entry) throw new Error(`the key ${header.kid} is not in the set`);
  const { payload } = await jwtVerify(token, entry.key, {
    algorithms: [entry.algorithm],
    typ: "at+jwt",
    issuer,
    audience,
    requiredClaims: REQUIRED,
    clockTolerance: LEEWAY,
  });
  for (const name of ["iss", "sub", "aud", "sid", "jti"]) {
    if (typeof payload[name] !== "string" || payload[name] === "") throw new Error(`${name} is no text`);
  }
  for (const name of ["exp", "nbf", "iat"]) {
    if (!Number.isSafeInteger(payload[name])) throw new Error(`${name} is no whole number`);
  }
  return payload;
}

const work = JSON.parse(readFileSync(0, "utf8"));
const keys = await keySet(work.jwks);
let wrong = false;
for (const { name, token, good } of work.tokens) {
  let why = null;
  try {
    await verify(token, keys, work.issuer, work.audience);
    if (!good) why = "it was taken";
  } catch (error) {
    if (good) why = `${error.name}: ${error.message}`;
  }
  console.log(why ? `WRONG ${name}: ${why}` : `ok ${name}`);
  wrong ||= why !== null;
}
process.exit(wrong ? 1 : 0);
