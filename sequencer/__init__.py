"""The sequencer: takes signed orders, journals them, applies them to one engine and settles the result on the chain.

`sequencer.app` puts the parts together; everything else is a part.
"""

import evermark  # noqa: F401  (it decides, before the engine is imported, whether the compiled one is used)
