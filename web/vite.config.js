// Builds the page into the Python package. Names have no hashes, so that a change of the page is a change of the same
// committed files; the server sends them with an ETag instead.
import { defineConfig } from "vite";

export default defineConfig({
  base: "/",
  build: {
    outDir: "../src/poise/web/static",
    emptyOutDir: true,
    target: "es2022",
    modulePreload: false,
    assetsInlineLimit: 0,
    rollupOptions: {
      output: {
        entryFileNames: "assets/page.js",
        chunkFileNames: "assets/[name].js",
        assetFileNames: ({ names }) => (names.some((name) => name.endsWith(".css")) ? "assets/page.css" : "assets/[name][extname]"),
      },
    },
  },
});
