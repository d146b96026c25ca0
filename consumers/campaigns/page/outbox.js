// Which messages would have gone out?
//
// Asks for a key once, then reads GET /v1/outbox. What a message says is written as text; its HTML
// stands in a frame that may run and load nothing.

const STORED_AS = "headwater.operator-key";
const at = (id) => document.getElementById(id);

function say(state, text) {
  at("state").dataset.state = state;
  at("state-text").textContent = text;
}

function ask(why) {
  if (why) at("ask-why").textContent = why;
  at("ask").hidden = false;
  at("mails").hidden = true;
  at("key").value = "";
  at("key").focus();
  say("waiting", "Waiting for a key");
}

function element(name, text) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  return made;
}

function show(mail) {
  const item = element("li");
  item.className = "panel";
  item.append(element("h2", mail.subject));
  item.append(element("p", `To ${mail.to}, ${new Date(mail.at).toLocaleString()}, ${mail.journey_id}, message ${mail.step}`));
  const frame = element("iframe");
  frame.setAttribute("sandbox", "");
  frame.title = `HTML part of ${mail.subject}`;
  frame.srcdoc = mail.html;
  frame.width = "100%";
  frame.height = "320";
  item.append(frame);
  const text = element("details");
  text.append(element("summary", "Text part"), element("pre", mail.text));
  item.append(text);
  return item;
}

async function load(key) {
  const answer = await fetch("/v1/outbox", { headers: { Authorization: `Bearer ${key}` } });
  if (answer.status === 401 || answer.status === 403) {
    sessionStorage.removeItem(STORED_AS);
    ask("This key is not that of the role operator. Which one is it?");
    return;
  }
  if (!answer.ok) {
    say("broken", `The outbox does not answer (${answer.status})`);
    return;
  }
  const { messages } = await answer.json();
  at("ask").hidden = true;
  at("empty").hidden = messages.length > 0;
  at("mails").hidden = messages.length === 0;
  at("mails").replaceChildren(...messages.map(show));
  say("live", `${messages.length} messages`);
}

at("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const key = at("key").value.trim();
  sessionStorage.setItem(STORED_AS, key);
  load(key);
});

const fromAddress = new URLSearchParams(location.hash.slice(1)).get("key");
if (fromAddress) {
  sessionStorage.setItem(STORED_AS, fromAddress);
  history.replaceState(null, "", location.pathname); // no key in the address bar or the history
}
const key = sessionStorage.getItem(STORED_AS);
if (key) load(key);
else ask();
