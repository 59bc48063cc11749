// A client as in a browser: node eventsource.cjs URL. One line of JSON for each thing that happens, until it is over:
// {"open": true}, {"status"|"problem"|"stale": data, "id": ...}, {"error": HTTP status or null, "closed": true or false}.
const { EventSource } = require('eventsource');

const source = new EventSource(process.argv[2]);
const say = (what) => console.log(JSON.stringify(what));
source.onopen = () => say({ open: true });
for (const type of ['status', 'problem', 'stale']) {
  source.addEventListener(type, (event) => say({ [type]: JSON.parse(event.data), id: event.lastEventId }));
}
source.onerror = (event) => say({ error: event.code ?? null, closed: source.readyState === EventSource.CLOSED });
