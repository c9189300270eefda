// Scenarios: sample paths drawn over the forecast, each a whole future that hangs together.

import { byId } from "./dom.js";

const MOST_SEED = 4294967295;
const SETTLE_MS = 400;

/** Return {paths, seed} as it is chosen, or {} for none. */
export function scenarios() {
  const paths = Number(byId("scenario-count").value);
  return paths ? { paths, seed: Number(byId("scenario-seed").value) } : {};
}

/** Set the control up; `onChange` is told of each choice. */
export function setUpScenarios(onChange) {
  const seed = byId("scenario-seed");
  let settling = null;
  const show = () => {
    for (const id of ["scenario-seed-field", "scenario-others"]) byId(id).hidden = byId("scenario-count").value === "0";
  };
  const changed = () => {
    show();
    if (seed.checkValidity()) onChange();
    else seed.reportValidity();
  };
  byId("scenario-count").addEventListener("change", changed);
  seed.addEventListener("input", () => {
    clearTimeout(settling);
    settling = setTimeout(changed, SETTLE_MS);
  });
  byId("scenario-others").addEventListener("click", () => {
    seed.value = (Number(seed.value) + 1) % (MOST_SEED + 1);
    changed();
  });
  show();
}
