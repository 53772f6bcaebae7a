"""Windows. Nothing outside of this folder imports Qt when the plugin is loaded."""
