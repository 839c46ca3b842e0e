// The page: the box, the list of models, the settings, and the keys.
import { Chat } from "./chat.js";
import { ServerError } from "./api.js";
import { Models, waitUntilReady } from "./models.js";
import { Settings } from "./settings.js";

const find = (id) => document.getElementById(id);
const box = find("box"), send = find("send"), stop = find("stop"), place = find("chat");

const models = new Models(find("model"));
const settings = new Settings(find("settings"), loadModels);
const chat = new Chat(place, settings, { edit, askAgain: ask });

function say(text) {
  find("status").textContent = text;
}

function showProblem(text) {
  find("problem").textContent = text;
  find("problem").hidden = !text;
  if (text) place.scrollTop = place.scrollHeight; // there is less room now
}

function showState() {
  send.disabled = chat.isAnswering || !models.chosen || !box.value.trim();
  stop.hidden = !chat.isAnswering;
  find("empty").hidden = place.children.length > 1;
}

async function loadModels() {
  try {
    await models.load(settings.key);
    showProblem("");
    say("");
  } catch (error) {
    await explain(error);
  }
  showState();
}

// Says what went wrong; asks for the key where the server wants one, and waits until it is ready.
async function explain(error) {
  if (!(error instanceof ServerError)) throw error;
  const again = error.retryAfter ? `; ask again in ${error.retryAfter} s` : "";
  showProblem(error.message + again);
  if (error.status === 401) settings.open("key");
  if ((error.status !== 503 && error.status !== 0) || models.chosen) return;
  say("Waiting for the server …");
  await waitUntilReady();
  await loadModels();
}

async function ask(text) {
  showProblem("");
  const answered = chat.ask(text, models.chosen);
  say("Answering …");
  showState();
  try {
    await answered;
    say("");
  } catch (error) {
    say("");
    await explain(error);
  } finally {
    showState();
  }
}

function edit(text) {
  box.value = text;
  box.focus();
  showState();
}

function startAnew() {
  chat.stop();
  chat.cut();
  showProblem("");
  box.focus();
  showState();
}

function submit() {
  const text = box.value.trim();
  if (send.disabled || !text) return;
  box.value = "";
  ask(text);
}

function onKey(event) {
  const isTyping = event.target.matches("input, textarea, select");
  if (event.key === "Escape" && !find("settings").open) chat.stop();
  else if (event.altKey && event.code === "KeyN") startAnew();
  else if (event.altKey && event.code === "KeyS") settings.open();
  else if (event.key === "/" && !isTyping) box.focus();
  else return;
  if (event.key !== "Escape") event.preventDefault();
}

box.addEventListener("input", showState);
box.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  submit();
});
find("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
stop.addEventListener("click", () => chat.stop());
find("new").addEventListener("click", startAnew);
find("open-settings").addEventListener("click", () => settings.open());
document.addEventListener("keydown", onKey);
loadModels();
