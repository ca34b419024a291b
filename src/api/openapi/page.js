// Shows openapi.json. Everything is set as text, so nothing in the document can become markup.

const element = (name, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
};

const answer = await fetch("/openapi.json");
const api = await answer.json();
const resolve = (part) =>
  part?.$ref ? part.$ref.slice(2).split("/").reduce((at, name) => at[name], api) : part;

// An example of what a schema describes: `…` where it would not end.
const example = (schema, depth = 0) => {
  const { type, properties, items, enum: values } = resolve(schema) ?? {};
  if (values) return values[0];
  if (depth > 4) return "…";
  const kind = Array.isArray(type) ? type[0] : type;
  if (properties)
    return Object.fromEntries(
      Object.entries(properties).map(([name, of]) => [name, example(of, depth + 1)]),
    );
  return { array: () => [example(items, depth + 1)], string: () => "text", integer: () => 1, number: () => 1.5,
    boolean: () => true, object: () => ({}) }[kind]?.() ?? null;
};

const shown = (title, content) => {
  const schema = content && Object.values(content)[0].schema;
  const parts = [element("p", { textContent: title })];
  if (schema)
    parts.push(element("pre", { textContent: JSON.stringify(example(schema), null, 2) }));
  return parts;
};

const call = (method, path, { summary, parameters = [], requestBody, responses }) => {
  const inside = element("div");
  for (const parameter of parameters.map(resolve)) {
    const { name, in: place, description = "", required } = parameter;
    const needed = required ? "" : ", optional";
    inside.append(element("p", { textContent: `${name} (${place}${needed}) ${description}` }));
  }
  if (requestBody) inside.append(...shown("Body", requestBody.content));
  for (const [status, response] of Object.entries(responses)) {
    const { description, content } = resolve(response);
    const body = status < 400 ? content : undefined;
    inside.append(...shown(`${status} ${description}`, body));
  }
  const head = element(
    "summary",
    {},
    element("b", { textContent: method }),
    element("code", { textContent: path }),
    element("span", { textContent: summary }),
  );
  return element("details", { className: method }, head, inside);
};

document.querySelector("#version").textContent = api.info.version;
const calls = Object.entries(api.paths).flatMap(([path, methods]) =>
  Object.entries(methods).map(([method, operation]) => [method, path, operation]),
);
document.querySelector("#calls").replaceChildren(
  ...api.tags.flatMap(({ name, description }) => [
    element("h2", { textContent: description }),
    ...calls.filter(([, , { tags }]) => tags.includes(name)).map((one) => call(...one)),
  ]),
);
