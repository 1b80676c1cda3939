// What every page needs: copying, tabs, dialogs in browsers without invoker commands, messages.

const COPIED_MILLISECONDS = 1600;
const SUCCESS_MILLISECONDS = 8000;

document.addEventListener("click", (event) => {
  const copier = event.target.closest("[data-copy]");
  if (copier) copy(copier);
  const dismisser = event.target.closest("[data-dismiss]");
  if (dismisser) dismisser.closest("[data-toast]").remove();
  const commander = event.target.closest("button[commandfor]");
  if (commander && !("command" in HTMLButtonElement.prototype)) command(commander);
});

// Good news goes by itself; what went wrong stays until it is dismissed.
for (const toast of document.querySelectorAll("[data-toast].success")) {
  setTimeout(() => toast.remove(), SUCCESS_MILLISECONDS);
}

for (const list of document.querySelectorAll("[data-tabs]")) tabs(list);

/** Copy the text of the element that the button names, and say so on the button. */
async function copy(button) {
  const source = document.querySelector(button.dataset.copy);
  try {
    await navigator.clipboard.writeText(source.textContent);
  } catch {
    // Without permission, or on plain http: select it, so that one keystroke copies it.
    getSelection().selectAllChildren(source);
    return;
  }
  button.dataset.copied = "";
  setTimeout(() => delete button.dataset.copied, COPIED_MILLISECONDS);
}

/** The tab pattern of the ARIA authoring practices: arrows move, the panel follows. */
function tabs(list) {
  const all = [...list.querySelectorAll("[role=tab]")];
  const select = (chosen) => {
    for (const tab of all) {
      const on = tab === chosen;
      tab.setAttribute("aria-selected", String(on));
      tab.tabIndex = on ? 0 : -1;
      document.getElementById(tab.getAttribute("aria-controls")).hidden = !on;
    }
  };
  list.addEventListener("click", (event) => {
    const tab = event.target.closest("[role=tab]");
    if (tab) select(tab);
  });
  list.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = all[(all.indexOf(event.target) + step + all.length) % all.length];
    select(next);
    next.focus();
  });
}

function command(button) {
  const dialog = document.getElementById(button.getAttribute("commandfor"));
  if (button.getAttribute("command") === "show-modal") dialog.showModal();
  if (button.getAttribute("command") === "close") dialog.close();
}
