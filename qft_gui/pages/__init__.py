"""One module per tab. A page lays out and wires; what it shows comes from `qft_gui.view`."""
