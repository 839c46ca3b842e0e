"use strict";
// What the head says of the runs, as text.
const element = document.getElementById("data:head");
const bytes = Uint8Array.from(atob(element.textContent), (c) => c.charCodeAt(0));
const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
const head = await new Response(stream).json();
const shown = document.createElement("pre");
shown.textContent = JSON.stringify(head.runs, null, 2);
document.getElementById("main").replaceChildren(shown);
