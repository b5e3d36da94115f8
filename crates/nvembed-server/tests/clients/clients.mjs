// openai for Node against `nvembed serve`: prints the embeddings of one text as a query and as a passage.
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";

const modules = fileURLToPath(new URL("../../../../build/clients-node/", import.meta.url));
const { OpenAI } = createRequire(modules)("openai");
const [baseURL, model, input] = process.argv.slice(2);
const api = new OpenAI({ baseURL, apiKey: "unused", timeout: 30000 });
const embed = async (kind) => (await api.embeddings.create({ model: `${model}-${kind}`, input })).data[0].embedding;
console.log(JSON.stringify({ query: await embed("query"), passage: await embed("passage") }));
