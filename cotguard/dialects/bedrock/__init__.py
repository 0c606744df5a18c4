"""Amazon Bedrock's runtime: Converse, and InvokeModel of several families."""
