// The fragment of the address says what is shown, so that a link leads back to it:
// #/trees/search1/it1-5?node=7. A place is {path: [...], query: {...}}.

function hrefOf({ path, query = {} }) {
  const kept = Object.entries(query).filter(
    ([, value]) => value !== "" && value !== null && value !== undefined,
  );
  const asked = new URLSearchParams(kept.map(([key, value]) => [key, String(value)])).toString();
  return `#/${path.map(encodeURIComponent).join("/")}${asked ? `?${asked}` : ""}`;
}

function placeOf(fragment) {
  const [path, asked = ""] = fragment.replace(/^#\/?/, "").split(/\?(.*)/s);
  return {
    path: path.split("/").filter(Boolean).map(decoded),
    query: Object.fromEntries(new URLSearchParams(asked)),
  };
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

function here() {
  return placeOf(location.hash);
}

const lastPlaces = new Map();

/** The fragment that a page was left with, with its filters. */
function lastPlace(path) {
  return lastPlaces.get(hrefOf({ path })) ?? hrefOf({ path });
}

function go(place) {
  location.hash = hrefOf(place);
}

/** Changes what is asked of this place, without a step in the history nor a new page. */
function remember(changes) {
  const { path, query } = here();
  const place = hrefOf({ path, query: { ...query, ...changes } });
  lastPlaces.set(hrefOf({ path }), place);
  history.replaceState(null, "", place);
}
