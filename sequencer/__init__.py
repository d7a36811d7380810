"""The sequencer: takes signed orders, journals them, applies them to one engine and settles the result on the chain.

`sequencer.app` puts the parts together; everything else is a part.
"""
