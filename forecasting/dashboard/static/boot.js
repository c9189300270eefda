// Runs before anything is drawn, so that no page flashes in the wrong colours.
(() => {
  const { nonce } = document.currentScript;
  const chosen = localStorage.getItem("graphtide-theme");
  if (chosen) document.documentElement.dataset.theme = chosen;

  // BokehJS makes <style> elements as it draws. The page's policy admits those that carry its nonce.
  const make = document.createElement.bind(document);
  document.createElement = (name, options) => {
    const element = make(name, options);
    if (String(name).toLowerCase() === "style") element.nonce = nonce;
    return element;
  };
})();
