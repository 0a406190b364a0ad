// A button beside a command copies it. A page of the file system may have no clipboard: then the text is selected and copied.
document.addEventListener("click", async event => {
  const button = event.target.closest("button.copy");
  if (!button) return;
  const code = button.parentNode.querySelector("code"), isCopied = await copied(code);
  button.textContent = isCopied ? "copied" : "press Ctrl+C";  // it is selected
  document.getElementById("said").textContent = isCopied ? "copied" : "selected, press Ctrl+C to copy";
  setTimeout(() => { button.textContent = "copy"; document.getElementById("said").textContent = ""; }, 2000);
});
async function copied(code) {
  try {
    await navigator.clipboard.writeText(code.textContent);
    return true;
  } catch {
    getSelection().selectAllChildren(code);
    return document.execCommand("copy");
  }
}
