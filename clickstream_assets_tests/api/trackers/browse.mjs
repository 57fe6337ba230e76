// Opens the shop's page in Chromium and clicks: node browse.mjs CHROMIUM ADDRESS ROUNDS MILLISECONDS
// Prints the ids of all calls, as JSON, before it waits for a line on its standard input and closes the page.
import {once} from "node:events";
import {chromium} from "playwright-core";

const [executablePath, address, rounds, milliseconds] = process.argv.slice(2);
const browser = await chromium.launch({executablePath, args: ["--no-sandbox"]});
const page = await browser.newPage();
page.on("pageerror", (error) => {
  console.error(error);
  process.exitCode = 1;
});
await page.goto(address);
await page.click("a");
for (let round = 0; round < Number(rounds); round++) {
  for (const id of ["P-1", "P-2"]) {
    await page.click(`#${id}`);
    await page.waitForTimeout(Number(milliseconds));
  }
}
console.log(JSON.stringify(await page.evaluate(() => window.called())));
await once(process.stdin, "data");
await browser.close();
process.exit();
