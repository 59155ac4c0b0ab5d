// Compiles the contracts with npm's solc and writes l1_bridge/artifacts/*.json, byte for byte the same on every
// machine. With --check nothing is written: the exit status is 1 if a committed artifact differs.
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";

const require = createRequire(import.meta.url);
const solc = require("solc");

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const artifacts = join(root, "..", "l1_bridge", "artifacts");
const contracts = ["Rollup", "Vault", "Inbox", "TestToken"];
// As in foundry.toml.
const settings = {
  evmVersion: "prague",
  metadata: { appendCBOR: false, bytecodeHash: "none" },
  optimizer: { enabled: true, runs: 10000 },
  viaIR: false,
};
// As there: OpenZeppelin's transient reentrancy guard clears what it sets, as the warning asks.
const ignored = ["2394"];

function sourcesUnder(folder) {
  return readdirSync(folder, { recursive: true })
    .filter((name) => name.endsWith(".sol"))
    .map((name) => join(folder, name))
    .sort();
}

function compile() {
  const sources = {};
  for (const file of sourcesUnder(join(root, "src"))) {
    sources[relative(root, file)] = { content: readFileSync(file, "utf8") };
  }
  const outputSelection = { "*": { "*": ["abi", "evm.bytecode.object", "evm.deployedBytecode.object"] } };
  const readImport = (path) => {
    try {
      return { contents: readFileSync(join(root, "node_modules", path), "utf8") };
    } catch {
      return { error: `${path} not found: run npm ci` };
    }
  };
  const input = { language: "Solidity", sources, settings: { ...settings, outputSelection } };
  const output = JSON.parse(solc.compile(JSON.stringify(input), { import: readImport }));
  const problems = (output.errors ?? []).filter((problem) => !ignored.includes(problem.errorCode));
  for (const problem of problems) console.error(problem.formattedMessage);
  if (problems.length) process.exit(1);
  return output.contracts;
}

function artifactOf(output, contractName) {
  const compiled = output[`src/${contractName}.sol`][contractName];
  return {
    contractName,
    abi: compiled.abi,
    bytecode: `0x${compiled.evm.bytecode.object}`,
    deployedBytecode: `0x${compiled.evm.deployedBytecode.object}`,
    compiler: { version: solc.version(), settings },
  };
}

function existing(path) {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

const check = process.argv.includes("--check");
const output = compile();
for (const name of contracts) {
  const path = join(artifacts, `${name}.json`);
  const artifact = artifactOf(output, name);
  const text = `${JSON.stringify(artifact, null, 1)}\n`;
  const bytes = artifact.deployedBytecode.length / 2 - 1;
  if (!check) {
    writeFileSync(path, text);
    console.log(`${name}: ${bytes} bytes`);
  } else if (existing(path) !== text) {
    console.error(`${name}: the committed artifact differs from what the sources compile to`);
    process.exitCode = 1;
  } else {
    console.log(`${name}: same`);
  }
}
